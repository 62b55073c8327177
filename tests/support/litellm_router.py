"""litellm's router in front of nodes, as a process of its own: asks many times, prints what came of it as JSON.

Arguments: how many requests, how many at once, the name of the model, the nodes' URLs. After a third of the answers
it prints ``third`` and goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing is fetched
os.environ.setdefault("DO_NOT_TRACK", "1")

import litellm

MAX_TOKENS = 12


def router(model: str, urls: list[str]) -> litellm.Router:
    """One deployment for each node; a request that a node refuses goes to another."""
    deployments = [
        {
            "model_name": model,
            "litellm_params": {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none"},
        }
        for url in urls
    ]
    return litellm.Router(
        model_list=deployments, num_retries=4, retry_after=0, allowed_fails=0, cooldown_time=60
    )


async def ask(routed: litellm.Router, model: str, number: int) -> dict[str, object]:
    """One answer, every second one streamed."""
    question = {
        "model": model,
        "messages": [{"role": "user", "content": f"question {number}"}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "extra_body": {"ignore_eos": True},
    }
    try:
        if number % 2:
            answer = await routed.acompletion(**question)
            return {"end": answer.choices[0].finish_reason, "tokens": answer.usage.completion_tokens}
        end = None
        async for chunk in await routed.acompletion(**question, stream=True):
            end = chunk.choices[0].finish_reason or end
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}"[:500]}
    return {"end": end}


async def main(n: int, at_once: int, model: str, urls: list[str]) -> None:
    """Ask, with a sign after a third."""
    routed, places = router(model, urls), asyncio.Semaphore(at_once)
    done: list[dict[str, object]] = []

    async def one(number: int) -> None:
        async with places:
            done.append(await ask(routed, model, number))
        if len(done) == n // 3:
            print("third", flush=True)

    await asyncio.gather(*map(one, range(n)))
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
