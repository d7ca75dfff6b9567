/** Without a word for so long the connection is taken for dead. The node speaks every five seconds. */
const SILENCE_MS = 16_000;

/** Opens Server-Sent Events with a token in the header, which the browser's own `EventSource` cannot send, and returns
 * what reads them: `for await (const message of ...)`. Throws as `ask` does. */
export async function listen(path, token) {
	const end = new AbortController();
	let response;
	try {
		response = await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {}, signal: end.signal });
		if (!response.ok) throw Object.assign(new Error(), (await response.json()).error);
	} catch (error) {
		throw error.code && typeof error.code === "string" ? error : Object.assign(new Error(), { code: "unreachable" });
	}
	return messages(response.body.pipeThrough(new TextDecoderStream()).getReader(), end);
}

async function* messages(reader, end) {
	let rest = "";
	try {
		for (;;) {
			const timer = setTimeout(() => end.abort(), SILENCE_MS);
			const { value, done } = await reader.read();
			clearTimeout(timer);
			if (done) return;
			const parts = (rest + value).split("\n\n");
			rest = parts.pop();
			for (const part of parts) {
				const data = /^data: (.*)$/m.exec(part);
				if (data) yield JSON.parse(data[1]);
			}
		}
	} catch {
		// cut off: whoever listens comes back
	} finally {
		end.abort();
	}
}
