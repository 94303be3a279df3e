"""Tests of the line, named after what it promises."""
