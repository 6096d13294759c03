"""What the tests of adopted scripts have in common."""

from tests.support.training_fixtures import old_objects_are_set_aside  # noqa: F401 - a fixture
