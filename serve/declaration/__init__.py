"""What a deployment is: as users write it, checked, flattened from its graph, and shipped as bytes.

Nothing here starts anything. `options` and `spec` are what all later rooms know of a deployment.
"""
