/** The server's clock as seen from here, in ms. The device's own time of day is never asked. */
export class ServerClock {
	#ahead = -Infinity;
	#roundTrip = Infinity;

	now() {
		return performance.now() + this.#ahead;
	}

	/** A `pong`: asked for and received at these times of `performance.now()`. The quickest one tells best. */
	measured(asked, received, now) {
		if (received - asked > this.#roundTrip) return;
		this.#roundTrip = received - asked;
		this.#ahead = now - (asked + received) / 2;
	}

	/** Something that was said at `now`: the server is at least that far ahead. */
	heard(now) {
		this.#ahead = Math.max(this.#ahead, now - performance.now());
	}

	/** A network that has changed may be slower: measure anew. */
	forget() {
		this.#roundTrip = Infinity;
	}
}
