const WITHIN_MS = 20_000;

/** One request. `body` is sent as JSON, or as it is when `type` names what it is. Throws an Error with the `code`,
 * `message` and `path` of the API's error; `code` is "unreachable" if there was no answer. */
export async function ask(method, path, { body, token, base = "", type } = {}) {
	const headers = {};
	if (token) headers.Authorization = `Bearer ${token}`;
	if (body) headers["Content-Type"] = type ?? "application/json";
	let response, data;
	try {
		response = await fetch(base + path, {
			method,
			headers,
			body: type ? body : JSON.stringify(body),
			signal: AbortSignal.timeout(WITHIN_MS),
		});
		data = await response.json();
	} catch {
		throw Object.assign(new Error(), { code: "unreachable" });
	}
	if (!response.ok) throw Object.assign(new Error(), data.error ?? { code: "internal" });
	return data;
}

/** Whether the same request may go through a little later. */
export const passing = (error) => ["unreachable", "busy", "rate_limited", "too_many_attempts", "internal"].includes(error.code);
