"""The four stores, one module each; nothing is imported here, so that no client is needed that is not used."""
