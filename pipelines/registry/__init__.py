"""The bucket of published models: releases, aliases, signatures, pulls."""
