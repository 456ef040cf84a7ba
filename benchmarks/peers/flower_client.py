"""Flower's client: Message API, as its PyTorch quickstart."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from task import TRAIN, make_net, rows

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on this node's rows."""
    torch.set_num_threads(1)
    config = message.content["config"]
    data, part = str(config["data"]), int(context.node_config["partition-id"])
    net = make_net(data)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss, style = 0.0, str(config["style"])
    if style != "none":
        round, epochs, batch = (int(config[name]) for name in ("server-round", "epochs", "batch"))
        loss = TRAIN[style](net, data, part, round, epochs, batch)
    metrics = MetricRecord({"train-loss": loss, "num-examples": len(rows(data, str(part))[1])})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=message)
