"""Values of all layers of a network, and how each value is computed, for the microscope page.

Data flow:

1. ``layers`` traces the network into displayed layers: an operation with its batch norm and activation.
2. ``survey`` reads the validation images once: patches that activate a channel most, means of each class, logits.
3. ``content`` collects the values of all layers for a few images, the weights, and the effect of each window.
4. ``plots/pages/microscope_page.py`` compresses the arrays into one HTML page.
5. The scripts of the page decompress and draw them, and list the terms of a value.
"""
