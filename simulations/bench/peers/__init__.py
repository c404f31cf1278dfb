"""Other systems on the rounds of `bench simulate`, each in an environment of its own.

`environments` builds those and runs the rounds there; the other files run inside them and import nothing of ours.
"""
