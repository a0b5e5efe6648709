"""One picture through the whole network, layer by layer and tower by tower: a page and a slide."""
