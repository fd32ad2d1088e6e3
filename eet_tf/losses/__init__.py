"""The losses: one file per paper, in each the maths as functions and a thin Keras class that holds the arguments."""
