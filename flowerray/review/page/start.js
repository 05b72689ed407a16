// The first screen: who reviews, how the pile stands, the ways to go on.
import { html, useEffect, useRef, useState } from "./vendor/htm/standalone.module.js";
import { Frame } from "./frame.js";
import { useKeys } from "./keys.js";
import { Key, count, many, percent } from "./parts.js";
import { ask } from "./server.js";

const WORDS = {
  queue: "What the classifier is least sure of, first.",
  suggest: "What it would learn most from.",
  audit: "A sample drawn by chance, its labels hidden: it tells how many accepted labels are right.",
  novel: "What lies farthest from the photographs it was trained on.",
  class: "A class at a time, from most to least sure.",
  suspects: "Labels that check finds doubtful.",
  everything: "The whole pile in order.",
};
const MANY = 12; // classes, from which on they are chosen in a list

export function Start({ session }) {
  const [isRenaming, setRenaming] = useState(!session.who);
  const { pile, who } = session;
  useEffect(() => {
    if (who) session.refresh();
  }, []);
  const usable = pile.modes.filter(({ name, left, why_not }) => name !== "class" && left > 0 && !why_not);
  useKeys(
    who && !isRenaming
      ? Object.fromEntries(usable.slice(0, 9).map(({ name }, i) => [String(i + 1), () => session.open(`#/one/${name}`)]))
      : {},
  );
  const total = pile.accepted + pile.waiting + pile.decided;
  const parts = [
    ["accepted", pile.accepted, "accepted"],
    ["review", pile.waiting, "to review"],
    ["human", pile.decided, "decided by people"],
  ];
  return html`<${Frame} session=${session}>
    <div class="wrap start">
      <p class="kind">${many(pile.photographs, "photograph")}${pile.round > 1 ? `, round ${pile.round}` : ""}</p>
      <h1><bdi>${pile.name}</bdi></h1>
      <div class="share-bar" aria-hidden="true">
        ${total > 0 && parts.map(([kind, number]) => html`<span class=${kind} style=${{ flexGrow: number }}></span>`)}
      </div>
      <dl class="figures">
        ${parts.map(([kind, number, text]) => html`<div class=${kind}>
          <dt>${text}</dt>
          <dd>${count(number)}${kind === "human" && pile.yours > 0 && html`<small> · ${count(pile.yours)} by you</small>`}</dd>
        </div>`)}
      </dl>
      ${pile.min_precision !== null && html`<p class="note">Accepted at a precision of at least ${percent(pile.min_precision)} on known classes.</p>`}
      ${isRenaming
        ? html`<${Who} session=${session} onDone=${() => setRenaming(false)} />`
        : html`<p class="who">Reviewing as <b><bdi>${who}</bdi></b>
            <button type="button" class="small" onClick=${() => setRenaming(true)}>Change</button></p>`}
      ${who && !isRenaming && html`
        <h2>Ways to review</h2>
        <ul class="modes">
          ${pile.modes.map((mode) => html`<${Mode}
            key=${mode.name}
            session=${session}
            mode=${mode}
            digit=${usable.indexOf(mode) + 1}
          />`)}
          <li class="mode card">
            <h3>Map of the pile</h3>
            <p>Photographs that look alike lie together; a lasso selects.</p>
            ${pile.like ? html`<p class="why-not">${pile.like}</p>` : html`<p class="row"><a class="button" href="#/map">Open the map</a></p>`}
          </li>
          <li class="mode card">
            <h3>Train and label again</h3>
            <p>The classifier learns from what people decided.</p>
            ${pile.teach ? html`<p class="why-not">${pile.teach}</p>` : html`<p class="row"><a class="button" href="#/teach">See what will run</a></p>`}
          </li>
        </ul>`}
    </div>
  <//>`;
}

function Who({ session, onDone }) {
  const [name, setName] = useState(session.who ?? "");
  const field = useRef();
  useEffect(() => field.current.focus(), []);
  function done(event) {
    event.preventDefault();
    if (!name.trim()) return;
    session.call(name.trim());
    onDone();
  }
  return html`<form class="card asking" onSubmit=${done}>
    <label for="who">Who are you?</label>
    <p class="note" id="who-note">Your name goes with each decision. It is kept in this browser.</p>
    <div class="row">
      <input
        id="who"
        ref=${field}
        type="text"
        maxlength="100"
        autocomplete="name"
        aria-describedby="who-note"
        value=${name}
        onInput=${(event) => setName(event.currentTarget.value)}
      />
      <button type="submit" class="main-button" disabled=${!name.trim()}>${session.who ? "Keep" : "Start"}</button>
    </div>
  </form>`;
}

function Mode({ session, mode, digit }) {
  const { name, title, left, why_not } = mode;
  const isOver = left === 0 && !why_not;
  return html`<li class=${`mode card ${isOver || why_not ? "resting" : ""} ${name === "queue" ? "first" : ""}`}>
    <h3>${title}</h3>
    <p>${WORDS[name] ?? ""}</p>
    ${!why_not && html`<p class="left"><b>${count(left)}</b> left</p>`}
    ${why_not && html`<p class="why-not">${why_not}</p>`}
    ${name === "audit" && why_not && session.pile.accepted > 0 && html`<${Draw} session=${session} />`}
    ${!isOver && !why_not && name === "class" && html`<${Classes} session=${session} />`}
    ${!isOver && !why_not && name !== "class" && html`<p class="row">
      <a class=${`button ${name === "queue" ? "main-button" : ""}`} href=${`#/one/${name}`} aria-label=${`${title}: one by one`}>
        ${digit > 0 && digit < 10 && html`<${Key}>${digit}<//>`}One by one
      </a>
      ${name !== "audit" && html`<a class="button" href=${`#/grid/${name}`} aria-label=${`${title}: grid`}>Grid</a>`}
    </p>`}
  </li>`;
}

function Classes({ session }) {
  const { classes } = session.pile;
  const to = (label) => `#/grid/class/${encodeURIComponent(label)}`;
  if (classes.length <= MANY)
    return html`<p class="row">
      ${classes.map((label) => html`<a key=${label} class="button" href=${to(label)}><bdi>${label}</bdi></a>`)}
    </p>`;
  return html`<form class="row" onSubmit=${(event) => {
    event.preventDefault();
    session.open(to(new FormData(event.currentTarget).get("class")));
  }}>
    <select name="class" aria-label="Class">${classes.map((label) => html`<option key=${label}>${label}</option>`)}</select>
    <button type="submit">Open</button>
  </form>`;
}

function Draw({ session }) {
  async function draw(event) {
    event.preventDefault();
    try {
      const number = Number(new FormData(event.currentTarget).get("number"));
      const { drawn } = await ask("api/audit", { number });
      session.say(`${many(drawn, "photograph")} drawn.`);
      await session.refresh();
    } catch (failure) {
      session.complain(failure.message);
    }
  }
  return html`<form class="row" onSubmit=${draw}>
    <input type="number" name="number" min="1" value="300" aria-label="Photographs to draw" />
    <button type="submit">Draw a sample</button>
  </form>`;
}
