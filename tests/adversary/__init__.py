"""Attacks on the package: damaged files, command lines, surroundings, interruptions and kills by the thousand.

`make adversary` tries all of it for an hour; test_adversary.py a little of each. Every case is made from its part, its
kind, a seed and a number, so what fails is made again by `python -m adversary PART --kinds KIND --only NUMBER`.
"""
