"""Load: open-model arrivals, clients that record what they saw, and the Locust file that drives them."""
