"""Rules over rendered resources, shared by unit tests, the gate and `pulumi preview --policy-pack infra/policy`."""
