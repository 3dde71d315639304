"""Seeds the database of the benchmark from the environment, as `daarion up` does."""

import asyncio

from localstack.seed import seed
from shared.bootstrap import open_services


async def main() -> None:
    """Seed once."""
    services = open_services()
    await seed(services)
    await services.close()


if __name__ == "__main__":
    asyncio.run(main())
