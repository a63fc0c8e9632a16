"""The two ways from representations to a prediction, by the names that results and command lines use."""

ROUTES = ("representation", "instrument")  # predict(z) and predict(z_c)
