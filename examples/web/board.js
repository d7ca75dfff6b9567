// <fanfare-board url="http://localhost:5001" code="123456"></fanfare-board>: what is asked, how many have answered, who is ahead.
import { connect } from "fanfare-client";

class FanfareBoard extends HTMLElement {
	/** @type {import("fanfare-client").Connection | undefined} */
	#game;

	connectedCallback() {
		const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
		root.innerHTML = `<style>li { display: flex; justify-content: space-between } :host([away]) { opacity: 0.5 }</style>
			<h2 part="question"></h2><p part="count"></p><ol part="top"></ol>`;
		const [question, count, top] = /** @type {HTMLElement[]} */ ([...root.querySelectorAll("[part]")]);
		/** @param {{ players: number, answered: number }} heard */
		const showCount = ({ players, answered }) => (count.textContent = `${answered} of ${players} have answered`);
		/** @param {import("fanfare-client").Line[]} lines */
		const showTop = (lines) => top.replaceChildren(...lines.map(({ rank, name, score }) => {
			const line = document.createElement("li");
			line.append(`${rank}. ${name}`, document.createElement("b"));
			/** @type {HTMLElement} */ (line.lastElementChild).textContent = String(score);
			return line;
		}));

		const game = (this.#game = connect({ url: this.getAttribute("url") ?? undefined, code: this.getAttribute("code") ?? "", role: "spectator" }));
		game.on("joined", ({ state }) => {
			if (!state) return; // it resumed: what was missed follows
			question.textContent = state.question?.text ?? state.title;
			showCount(state);
			showTop(state.leaderboard.top);
		});
		game.on("question", ({ text }) => (question.textContent = text));
		game.on("progress", showCount);
		game.on("leaderboard", (board) => (showCount(board), showTop(board.top)));
		game.on("finished", ({ podium }) => ((question.textContent = "The end"), showTop(podium)));
		game.on("status", ({ status }) => this.toggleAttribute("away", status === "waiting"));
	}

	disconnectedCallback() {
		this.#game?.leave();
	}
}
customElements.define("fanfare-board", FanfareBoard);
