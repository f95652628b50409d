"""Other ways than this process to carry a run out: one file each, imported when it is asked for."""
