"""The tools of a microDAO: their versions, who may use them, where they come from and how they are used."""
