"""Functionals and the datasets that they use."""


class XC:
    def __init__(self, name: str) -> None:
        self.name = name

    def get_setup_name(self) -> str:
        return {"PBEsol": "PBE"}.get(self.name, self.name)
