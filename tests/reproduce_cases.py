"""Results of runs that were never trained."""


def metrics_of(cell, mae=10.0, seconds=2.0, **data):
    """What a run of ``cell`` would have left, with an MAE that grows by 0.1 per step."""
    config = cell.config.complete()
    plain, adapter = 1000, 100 * config.adapter.layers * config.adapter.rank

    def errors(error):
        return {"mae": error, "rmse": 2 * error, "mape": 3 * error, "targets": 100}

    def scores(error):
        steps = [errors(error + 0.1 * step) for step in range(1, 13)]
        return {"steps": steps, "mean_of_steps": errors(error + 0.5), "pooled": errors(error)}

    parameters = {"total": plain}
    if config.stlora:
        parameters = {"total": plain + adapter, "backbone": plain, "adapter": adapter, "overhead_percent": adapter / 10}
    model = config.model_name
    return {
        "model": model,
        "data": {
            "name": config.dataset,
            "synthetic": config.dataset == "synthetic",
            "quantity": "flow",
            "unit": "veh/5min",
            "nodes": 170,
            "steps": 7156,
            "first_step": "2016-08-07T03:40:00",
            "last_step": "2016-08-31T23:55:00",
            "steps_per_day": 288,
            "windows": {"train": 4280, "val": 1427, "test": 1426},
            "scaler": {"mean": 1.0, "std": 2.0},
        }
        | data,
        "columns": {"15 min": 3, "30 min": 6, "60 min": 12},
        "test": {model: scores(mae), "HA (last value)": scores(20.0)},
        "parameters": parameters,
        **({} if cell.is_fitted else {"best_epoch": 1, "epochs": [{}, {}], "seconds_per_epoch": seconds}),
        "device": "cpu",
        "threads": 1,
        "config": config.as_dict(),
        "versions": {"torch": "2.13.0"},
    }


def mae_of(cell):
    """Without the adapter 10, 11, ... by seed; with it 1 less, and 0.1 less again for each seed."""
    seed = cell.config.seed
    return 10.0 + seed - (1 + 0.1 * seed) * cell.config.stlora
