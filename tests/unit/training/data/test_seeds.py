"""Derived seeds: stable for ever, and unrelated for related parts."""

from trainerd.training.data.seeds import derive_seed


def test_seeds_are_the_same_for_ever():
    # A changed value here changes the data order of every run that is resumed after an upgrade.
    assert [derive_seed(0), derive_seed(1, 2), derive_seed(2, 1), derive_seed(1, 2, 3)] == [
        8147104208329303767,
        6804074658870690613,
        8085905411993364802,
        7510213797696614745,
    ]


def test_seeds_differ_in_every_part_and_in_their_order():
    seeds = [derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)]
    assert len(set(seeds)) == 1000


def test_seeds_fit_every_generator():
    assert all(0 <= derive_seed(-5, part, 2**80) < 2**63 for part in range(100))
