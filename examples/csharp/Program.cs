// A player in the console, by SignalR: dotnet run http://localhost:5002/hub 123456 Ada
using System.Text.Json;
using Microsoft.AspNetCore.SignalR;
using Microsoft.AspNetCore.SignalR.Client;

if (args is not [var url, var code, var name])
{
    Console.Error.WriteLine("dotnet run URL CODE NAME");
    return 2;
}

string? token = null; // what to come back with, and where this player stands
long epoch = 0, offset = 0;
int open = 0; // the question that takes answers, from this moment of Environment.TickCount64 on
long opensAt = 0;
var seated = new TaskCompletionSource(); // made anew whenever the connection is lost
var over = new TaskCompletionSource<string>();

var hub = new HubConnectionBuilder().WithUrl(url).WithAutomaticReconnect().Build();

void Show(JsonElement question)
{
    open = question.GetProperty("number").GetInt32();
    var opensIn = question.GetProperty("opens_in_ms");
    opensAt = Environment.TickCount64 + (opensIn.ValueKind == JsonValueKind.Number ? opensIn.GetInt64() : 0);
    Console.WriteLine($"{open}/{question.GetProperty("of")} {question.GetProperty("text").GetString()}");
    var choices = question.GetProperty("choices");
    if (choices.ValueKind != JsonValueKind.Array) return; // typed, or withheld until it opens
    foreach (var (choice, at) in choices.EnumerateArray().Select((choice, at) => (choice, at)))
        Console.WriteLine($"  {at}: {choice.GetString()}");
}

// By an event, and not as the result of a call: so it stands in its order among the others.
hub.On<JsonElement>("joined", joined =>
{
    token = joined.GetProperty("token").GetString();
    epoch = joined.GetProperty("epoch").GetInt64();
    var state = joined.GetProperty("state");
    if (state.ValueKind == JsonValueKind.Object) // else this player has resumed, and what was missed follows
    {
        offset = joined.GetProperty("offset").GetInt64();
        Console.WriteLine($"You are {joined.GetProperty("name").GetString()}.");
        if (state.GetProperty("phase").GetString() == "question") Show(state.GetProperty("question"));
    }
    seated.TrySetResult();
});
foreach (var numbered in new[] { "question", "reveal", "state", "finished" })
{
    hub.On<JsonElement>(numbered, message => { offset = message.GetProperty("offset").GetInt64(); });
}
hub.On<JsonElement>("question", Show);
hub.On<JsonElement>("result", result => Console.WriteLine(
    $"{(result.GetProperty("correct").ValueKind == JsonValueKind.True ? "Right" : "Not right")}: "
    + $"{result.GetProperty("points")} points, place {result.GetProperty("rank")}"));
hub.On<JsonElement>("finished", _ => over.TrySetResult("The end."));
hub.On<JsonElement>("error", async error =>
{
    if (error.GetProperty("code").GetString() == "busy") // nothing has changed: once more, a moment later
    {
        await Task.Delay(1000);
        await Join();
        return;
    }
    over.TrySetResult($"{error.GetProperty("code").GetString()}: {error.GetProperty("message").GetString()}");
});

Task Join() => token is null
    ? hub.SendAsync("Join", new { code, name })
    : hub.SendAsync("Join", new { code, token, epoch, offset });

hub.Reconnecting += _ =>
{
    seated = new TaskCompletionSource();
    return Task.CompletedTask;
};
hub.Reconnected += _ => Join();
hub.Closed += error =>
{
    over.TrySetResult(error?.Message ?? "The connection is closed.");
    return Task.CompletedTask;
};

// An answer whose call was lost with its connection is said again: it counts once, and gets the same ack.
async Task Answer(int question, JsonElement choice)
{
    var wait = opensAt - Environment.TickCount64;
    if (wait > 0) await Task.Delay(TimeSpan.FromMilliseconds(wait));
    while (!over.Task.IsCompleted)
    {
        await Task.WhenAny(seated.Task, over.Task);
        try
        {
            await hub.InvokeAsync<JsonElement>("Answer", new { question, choice });
            Console.WriteLine("Saved.");
            return;
        }
        catch (HubException refused) when (refused.Message.Contains("busy: "))
        {
            await Task.Delay(1000);
        }
        catch (HubException refused)
        {
            Console.WriteLine(refused.Message);
            return;
        }
        catch (Exception) when (hub.State != HubConnectionState.Disconnected)
        {
            await Task.Delay(500); // the connection is gone, and comes back
        }
    }
}

async Task ReadAnswers()
{
    while (await Console.In.ReadLineAsync() is { } line) // 2, [0, 2], true, "Lisbon", 42
    {
        try
        {
            using var choice = JsonDocument.Parse(line);
            await Answer(open, choice.RootElement);
        }
        catch (JsonException)
        {
            Console.WriteLine("An answer is JSON: 2, [0, 2], true, \"Lisbon\", 42");
        }
    }
}

await hub.StartAsync();
await Join();
_ = ReadAnswers();
Console.WriteLine(await over.Task);
await hub.DisposeAsync();
return 0;
