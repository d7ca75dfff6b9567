// The quiz room of bench/rooms.py on `ws`: `node ws_room.js TICKS_PER_S`. Prints its port, and ends with its
// standard input.
"use strict";

const { WebSocketServer } = require("ws");

const TOP = 10;
const CORRECT = 0;
const ticksPerS = Number(process.argv[2]);
const rooms = new Map();

function roomOf(code) {
  let room = rooms.get(code);
  if (!room) {
    room = { members: [], number: 0, openedAt: 0, open: false, answered: 0, told: 0 };
    rooms.set(code, room);
  }
  return room;
}

function broadcast(room, message) {
  const text = Buffer.from(JSON.stringify(message));
  for (const member of room.members) member.socket.send(text, { binary: false });
}

function board(room) {
  const best = [...room.members].sort((a, b) => b.score - a.score).slice(0, TOP);
  const top = best.map((each, n) => ({ rank: n + 1, id: each.id, name: each.name, score: each.score }));
  broadcast(room, { t: "leaderboard", top, players: room.members.length });
}

function tick(room) {
  if (!room.open || room.answered === room.told) return;
  const { number, answered, members } = room;
  room.told = answered;
  broadcast(room, { t: "progress", number, answered, players: members.length });
}

function order(room, what) {
  if (what === "close") {
    room.open = false;
    for (const member of room.members) {
      member.socket.send(JSON.stringify({ t: "result", number: room.number, score: member.score }));
    }
    board(room);
  } else {
    room.number += 1;
    room.openedAt = performance.now();
    room.open = true;
    room.answered = room.told = 0;
    broadcast(room, { t: "question", number: room.number, choices: ["a", "b", "c", "d"] });
  }
}

function take(member, message) {
  const { room, socket } = member;
  if (message.t === "host") {
    order(room, message.do);
    socket.send(JSON.stringify({ t: "done", id: message.id }));
  } else if (!room.open || message.question !== room.number || member.answered === room.number) {
    socket.send(JSON.stringify({ t: "error", code: "late", id: message.id }));
  } else {
    const elapsed = Math.floor(performance.now() - room.openedAt);
    member.answered = room.number;
    if (message.choice === CORRECT) member.score += Math.max(1000 - Math.floor(elapsed / 60), 500);
    room.answered += 1;
    const { id, question } = message;
    socket.send(JSON.stringify({ t: "ack", id, question, status: "accepted", elapsed_ms: elapsed }));
  }
}

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false });
server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket) => {
  let member = null;
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    if (member) {
      take(member, message);
      return;
    }
    const room = roomOf(message.code);
    member = { room, socket, id: room.members.length + 1, name: message.name, score: 0, answered: 0 };
    if (!("token" in message)) room.members.push(member);
    socket.send(JSON.stringify({ t: "joined", player: member.id }));
  });
});
if (ticksPerS > 0) {
  setInterval(() => {
    for (const room of rooms.values()) tick(room);
  }, 1000 / ticksPerS);
}
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
