"""The services that run on the platform, and the contracts they share with those who run and judge them."""
