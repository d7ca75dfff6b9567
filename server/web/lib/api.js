/** What the HTTP API refuses, or that it could not be reached (`code` is then "unreachable"). */
export class ApiError extends Error {
	constructor({ code, message, path }, status = 0) {
		super(message);
		this.code = code;
		this.path = path;
		this.status = status;
	}
}

const WITHIN_MS = 20_000;

/** One request. `body` is sent as JSON, or as it is when `type` names what it is. Throws ApiError. */
export async function ask(method, path, { body, token, base = "", type } = {}) {
	const headers = {};
	if (token) headers.Authorization = `Bearer ${token}`;
	if (body !== undefined) headers["Content-Type"] = type ?? "application/json";
	let response, data;
	try {
		response = await fetch(base + path, {
			method,
			headers,
			body: body === undefined || type ? body : JSON.stringify(body),
			signal: AbortSignal.timeout(WITHIN_MS),
		});
		data = await response.json();
	} catch {
		throw new ApiError({ code: "unreachable", message: "" });
	}
	if (!response.ok) throw new ApiError(data.error ?? { code: "internal", message: response.statusText }, response.status);
	return data;
}

/** Whether the same request may go through a little later. */
export const passing = (error) => ["unreachable", "busy", "rate_limited", "internal"].includes(error.code);
