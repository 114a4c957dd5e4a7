"""What is built on brokers and stores, once for all of them."""
