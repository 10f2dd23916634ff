"""`make release`: packages, images, manifests, SBOMs and checksums of one version.

Runs the tools that make them (build, buildah, kubectl, cyclonedx-py) and imports no process.
"""
