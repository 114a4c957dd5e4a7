"""Where idle slots wait: nobody sleeps while work waits."""

from __future__ import annotations

import threading

from goose.worker.slots import Parking


def test_one_call_reaches_all_that_are_on_their_way_to_park() -> None:
    """Of two slots that found nothing before two jobs came, the second does not sleep either."""
    parking, first, second = Parking(), threading.Lock(), threading.Lock()
    seen = parking.calls
    parking.unpark()  # one call for both jobs

    parking.park(first, seen)
    late = threading.Thread(target=parking.park, args=(second, seen), daemon=True)
    late.start()
    late.join(5.0)

    assert not late.is_alive()


def test_a_parked_slot_is_woken_by_a_call() -> None:
    """A slot that parked with nothing to do comes back when called."""
    parking, place = Parking(), threading.Lock()
    slot = threading.Thread(target=parking.park, args=(place, parking.calls), daemon=True)
    slot.start()
    while not parking.can_help:
        pass

    parking.unpark()
    slot.join(5.0)

    assert not slot.is_alive()
