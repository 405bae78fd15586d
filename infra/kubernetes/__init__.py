"""The kubernetes runtime: the Pulumi program's components, and the renderer that runs them without a cluster."""
