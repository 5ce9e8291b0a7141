"""Timings side by side, and their recorded results: see README.md in this folder."""
