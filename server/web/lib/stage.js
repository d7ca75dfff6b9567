import "../elements/choices.js";
import "../elements/countdown.js";
import "../elements/leaderboard.js";
import { $, fill, h, say } from "./dom.js";
import { shown } from "./model.js";
import { t } from "./texts.js";

/** How many of how many, as a bar. */
export const gauge = (bar, value, max) => Object.assign($(bar), { max: Math.max(max, 1), value });

/** Shows a session in the markup that the pages of host and spectators have in common. What is to be seen when is left
 * to their styles, by the body's `data-phase` and `data-paused`. */
export class Stage {
  #drawn = {};

  constructor(code) {
    const address = location.host;
    for (const place of document.querySelectorAll(".address")) say(place, address);
    for (const place of document.querySelectorAll(".code")) fill(place, h("span", {}, code.slice(0, 3)), h("span", {}, code.slice(3)));
    Object.assign($("#qr"), { src: `/qr.svg?code=${code}`, alt: t("stage.qr", { address }) });
  }

  /** `peek`: with the right answer while the question is open. True if this is another phase than before. */
  show(model, peek) {
    const { number, of, question, reveal, players, answered, podium } = model;
    const paused = model.phase === "paused";
    const phase = !paused ? model.phase : reveal ? "reveal" : number ? "question" : "lobby";
    const asked = number ? t("question.of", { number, of }) : "";
    Object.assign(document.body.dataset, { phase, paused });
    document.title = `${model.title} · Fanfare`;
    say($("#title"), model.title);
    say($("#players"), t("players", { count: players }));
    say($("#of"), asked);
    let told = "";
    if (question) {
      const typed = !question.choices && question.type !== "true_false";
      const right = `${t("reveal.answer")}: ${shown(question, (reveal ?? question).correct, t)}`;
      say($("#worth"), t("worth", { count: question.points }));
      say($("#question"), question.text);
      say($("#answered"), t("stage.answered", { answered, players }));
      say($("#right"), (reveal ? typed : peek) ? right : "");
      gauge("#share", answered, players);
      $("#board").show(model.top);
      if (this.#isNew("clock", `${model.endsAt} ${model.left}`)) $("#time").show(model);
      if (this.#isNew("choices", `${number} ${Boolean(reveal)}`)) this.#choices(question, reveal, typed);
      told = reveal ? right : `${asked}. ${question.text}`;
    }
    if (!this.#isNew("phase", `${phase} ${number} ${paused}`)) return false;
    if (phase === "finished") {
      $("#podium").show(podium);
      told = podium[0] ? t("stage.won", podium[0]) : "";
    }
    say($("#spoken"), paused ? t("paused") : told);
    return true;
  }

  #isNew(what, value) {
    const before = this.#drawn[what];
    this.#drawn[what] = value;
    return before !== value;
  }

  #choices(question, reveal, typed) {
    const choices = $("#choices");
    choices.hidden = typed && !reveal;
    choices.classList.toggle("typed", typed);
    if (!typed) choices.show(question, { reveal });
    else if (reveal) choices.show({ choices: [t("stage.right"), t("stage.wrong")] }, { reveal: { correct: 0, counts: reveal.counts } });
  }
}
