"""What the components of the program share: their type's name, aliases for renames, and who waits for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pulumi


class Component(pulumi.ComponentResource):
    """A part of the platform. Objects in the cluster bear the names that their Pulumi resources bear.

    When a class is renamed, its old name goes into FORMER_NAMES: Pulumi then finds what exists instead of replacing it.
    """

    FORMER_NAMES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        aliases = [pulumi.Alias(type_=_token(former)) for former in self.FORMER_NAMES]
        merged = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(aliases=aliases))
        super().__init__(_token(type(self).__name__), name, {}, merged)

    def child(
        self,
        *,
        after: Sequence[pulumi.Resource] = (),
        replace_first: bool = False,
        protect: bool = False,
        wait_s: int | None = None,
    ) -> pulumi.ResourceOptions:
        """Options of a part.

        `replace_first` deletes before it creates: for immutable objects with a fixed name. `protect`: Pulumi refuses to
        delete or replace it until somebody takes that off by hand. `wait_s`: how long Pulumi waits for it; by itself it
        does for ten minutes.
        """
        return pulumi.ResourceOptions(
            parent=self,
            depends_on=list(after),
            delete_before_replace=replace_first or None,
            protect=protect or None,
            custom_timeouts=None if wait_s is None else pulumi.CustomTimeouts(create=f"{wait_s}s", update=f"{wait_s}s"),
        )


def _token(class_name: str) -> str:
    return f"breakwater:kubernetes:{class_name}"
