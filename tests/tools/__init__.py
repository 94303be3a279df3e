"""Tests of the commands, the stand-ins, and the files around the code."""
