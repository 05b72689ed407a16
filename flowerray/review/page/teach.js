// Train and label again: the loop's jobs, run from the page.
import { html, useEffect, useState } from "./vendor/htm/standalone.module.js";
import { Frame } from "./frame.js";
import { Command, count, many } from "./parts.js";
import { ask, patiently } from "./server.js";

export function Teach({ session }) {
  const [teach, setTeach] = useState(null);
  const { pile } = session;
  const isRunning = teach?.state === "running";

  useEffect(() => {
    let isShown = true;
    patiently("api/teach", null, () => !isShown)
      .then((now) => now && isShown && setTeach(now))
      .catch((failure) => session.complain(failure.message));
    return () => {
      isShown = false;
    };
  }, []);
  useEffect(() => {
    if (!isRunning) return;
    let isShown = true;
    const watch = async () => {
      while (isShown) {
        await new Promise((done) => setTimeout(done, 500));
        const now = await patiently("api/teach", null, () => !isShown);
        if (!isShown || !now) return;
        setTeach(now);
        if (now.state === "running") continue;
        session.say(now.state === "done" ? "Labelled again." : "Training failed.");
        return session.refresh();
      }
    };
    watch().catch((failure) => session.complain(failure.message));
    return () => {
      isShown = false;
    };
  }, [isRunning]);

  async function start() {
    try {
      // What isn't saved yet would not be learnt.
      while (session.outbox.entries.length) await new Promise((done) => setTimeout(done, 100));
      setTeach(await ask("api/teach", { who: session.who }));
    } catch (failure) {
      session.complain(failure.message);
    }
  }
  const changed = teach?.state === "done" ? teach.changed : null;
  const flipped = changed?.flipped ?? [];
  return html`<${Frame} session=${session} title="Train and label again">
    <div class="wrap teach">
      <h1>Train and label again</h1>
      <p>The classifier learns from what people decided (${count(pile.decided)}), then the pile is labelled anew from its stored features. What people decided stays as it is.</p>
      ${teach?.command && html`<${Command} text=${teach.command} session=${session} />`}
      ${pile.teach && html`<p class="warning">${pile.teach}</p>`}
      <p>
        <button type="button" class="main-button" disabled=${!teach || isRunning || Boolean(pile.teach)} onClick=${start}>
          ${isRunning ? "Running …" : changed ? "Once more" : "Train and label again"}
        </button>
      </p>
      ${(isRunning || teach?.state === "failed") && html`<section class="card">
        <h2>${isRunning ? `Now: ${teach.step}` : "It failed"}</h2>
        ${isRunning && html`<div class="running" role="progressbar" aria-label=${teach.step}><span></span></div>`}
        <p role="status">${teach.line}</p>
        <pre class="log" role="log" tabindex="0" aria-label="Progress">${teach.lines.join("\n")}</pre>
      </section>`}
      ${changed && html`<section class="card changed">
        <h2>Round ${changed.round}: what changed</h2>
        <dl class="figures">
          <div><dt>Accepted before</dt><dd>${count(changed.accepted_before)}</dd></div>
          <div><dt>Accepted now</dt><dd>${count(changed.accepted_now)}</dd></div>
          <div><dt>Decided by people</dt><dd>${count(changed.human)}</dd></div>
        </dl>
        ${flipped.length
          ? html`<table class="flips">
              <caption>Labels that changed</caption>
              <thead><tr><th scope="col">from</th><th scope="col">to</th><th scope="col" class="number">photographs</th></tr></thead>
              <tbody>
                ${flipped.map(({ from, to, count: number }) => html`<tr key=${`${from} ${to}`}>
                  <td><bdi>${from ?? "no label"}</bdi></td><td><bdi>${to ?? "no label"}</bdi></td><td class="number">${count(number)}</td>
                </tr>`)}
              </tbody>
            </table>`
          : html`<p>No label changed.</p>`}
        <details>
          <summary>What the commands said</summary>
          <pre class="log" role="log" tabindex="0" aria-label="Progress">${teach.lines.join("\n")}</pre>
        </details>
        <p class="row">
          <a class="button main-button" href="#/one/queue">Go on with the ${many(pile.modes.find(({ name }) => name === "queue")?.left ?? 0, "photograph")} of the queue</a>
          <a class="button" href="#/">All ways to review</a>
        </p>
      </section>`}
    </div>
  <//>`;
}
