// The end of a mode: what was decided, how the bound stands, how to go on.
import { html, useEffect, useState } from "./vendor/htm/standalone.module.js";
import { Command, count, many, spoken } from "./parts.js";
import { patiently } from "./server.js";

// `holds` is null where no precision was asked for, or not all is judged.
function Bound({ line, holds }) {
  const [kind, word] = holds === null ? ["open", "So far"] : holds ? ["holds", "The bound holds"] : ["short", "Not there yet"];
  return html`<p class=${`bound ${kind}`}><b>${word}</b><br />${line}</p>`;
}

export function End({ session, mode, skipped, onSkipped, onUndo }) {
  const [end, setEnd] = useState(null);
  useEffect(() => {
    let isShown = true;
    // Told once everything is saved, so that the figures are whole.
    const look = async () => {
      while (isShown && session.outbox.entries.length) await new Promise((done) => setTimeout(done, 100));
      const about = new URLSearchParams({ who: session.who, mode });
      const said = await patiently(`api/end?${about}`, null, () => !isShown);
      if (isShown) setEnd(said);
    };
    look().catch((failure) => session.complain(failure.message));
    session.refresh();
    document.querySelector(".end h1")?.focus({ preventScroll: true });
    return () => {
      isShown = false;
    };
  }, []);
  const others = session.pile.modes.filter(({ name, left, why_not }) => name !== mode && left > 0 && !why_not);
  const classes = Object.entries(end?.by_class ?? {}).sort((a, b) => b[1] - a[1]);
  const most = Math.max(1, ...classes.map(([, number]) => number));
  return html`<div class="wrap end">
    <h1 tabindex="-1">${skipped ? "The end, but for what was skipped" : "That was the last one"}</h1>
    ${end?.lines.map((line) => html`<p>${line}</p>`)}
    ${skipped > 0 && html`<p><button type="button" class="main-button" onClick=${onSkipped}>Back to the ${count(skipped)} skipped</button></p>`}
    ${end?.bound && html`<${Bound} ...${end.bound} />`}
    <div class="columns">
      ${classes.length > 0 && html`<section class="card">
        <h2>Decided by people</h2>
        <table class="counts">
          ${classes.map(([label, number]) => html`<tr key=${label}>
            <th scope="row"><bdi>${spoken(label)}</bdi></th>
            <td class="bar-cell"><span class="meter" style=${{ width: `${(100 * number) / most}%` }}></span></td>
            <td class="number">${count(number)}</td>
          </tr>`)}
        </table>
      </section>`}
      <section class="card">
        <h2>Go on</h2>
        <p class="row">
          <button type="button" onClick=${onUndo}>Undo the last decision</button>
          <a class="button" href="#/teach">Train and label again</a>
        </p>
        ${others.length > 0 && html`<ul class="ways">
          ${others.map(({ name, title, left }) => html`<li key=${name}>
            <a class="button" href=${name === "class" ? "#/" : `#/one/${name}`}>${title} <span class="soft">${count(left)} left</span></a>
          </li>`)}
        </ul>`}
        ${end?.commands.length > 0 && html`<h3>Or on the command line</h3>`}
        ${end?.commands.map((text) => html`<${Command} key=${text} text=${text} session=${session} />`)}
      </section>
    </div>
  </div>`;
}
