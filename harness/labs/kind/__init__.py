"""Clusters that kind makes: the ``kind`` program by subprocess, never through a shell.

``cluster`` makes one and ends it, in phases; ``lab`` runs scenarios on it. ``kind`` and ``runtime``
are the two programs that are called, by ``command``; ``state`` remembers what is ours.
"""
