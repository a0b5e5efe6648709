"""The pictures: of an evaluation, of one photograph in the network, of the network itself; one style, PNG and SVG."""
