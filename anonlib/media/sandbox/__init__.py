"""Photos are decoded in processes of their own, because a file made for it can crash a C library, or never end.

Nothing is imported here, since each of these processes would load it.
"""
