document.title = "Fanfare";
