"""Looks at an installation and says what is wrong with it and how to mend it. Changes nothing."""
