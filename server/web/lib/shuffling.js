/** The last step of MurmurHash3: every bit of the number changes half the bits of the result. */
function mixed(number) {
	number = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
	number = Math.imul(number ^ (number >>> 13), 0xc2b2ae35);
	return (number ^ (number >>> 16)) >>> 0;
}

/** The choices of a question, by their places in the quiz, in the order in which the player with this seed sees them: as
 * docs/protocol.md has it. */
export function orderOfChoices(seed, question, count) {
	const base = mixed(seed + question);
	return [...Array(count).keys()].sort((one, other) => mixed(base + one) - mixed(base + other));
}
