"""Fast tests of logic alone: no servers, no sleeping."""
