"""The command serve."""

from project.commands.setup import read_validation, start_tensorflow


def serve(settings):
    """Answer on a local page, and in JSON, what a network sees in an image."""
    project = settings.project
    from library.serving import server

    server.check_packages()
    with server.open_socket(project.host, project.port) as listening:
        validation_split = read_validation(project)
        start_tensorflow(project)
        from library.logging import report
        from library.serving.application import make_application
        from library.serving.model import ServedModel
        from library.serving.turns import Turns
        from library.serving.uploads import Limits
        from project import load_network

        snapshot = load_network.read_chosen_snapshot(settings)
        # Heat is the network's own: a temperature changes none of it.
        fitted = load_network.fit_to_validation(settings, snapshot, validation_split)
        own = (fitted.threshold, fitted.temperature)
        with ServedModel(snapshot, project.max_megapixels, *own) as model:
            application = make_application(
                model,
                Limits(project.max_upload_megabytes, project.max_upload_secs),
                Turns(project.max_waiting),
                report,
                server.hosts_of(project.host),
            )
            if not server.is_loopback(project.host):
                report(f"warning: whoever reaches {project.host} may use it; it asks no password")
            report(f"serving {model.subject}; Ctrl-C ends it")
            print(server.url_of(listening), flush=True)
            server.serve_forever(application, listening)
