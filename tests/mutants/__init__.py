"""Hand-made mutants: one-line breaks of the code, each of which a named test file must catch.

    python -m tests.mutants             run all of them, two at a time
    python -m tests.mutants --list      list them
    python -m tests.mutants --only 7    run number 7; several: --only 7 12

Every mutant runs in a temporary copy of the tree, never in place. Before that, the same test files run in a
copy that nobody changed: a file that fails there catches nothing.
"""
