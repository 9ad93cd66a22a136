# Dates, time zones, calendars, locales.
# stdout: '2026-03-29T03:30:00+02:00 31 UTC\n'
import calendar
import datetime
import time
import zoneinfo

moment = datetime.datetime(2026, 3, 29, 1, 30, tzinfo=datetime.UTC).astimezone(zoneinfo.ZoneInfo("Europe/Paris"))
print(moment.isoformat(), calendar.monthrange(2026, 1)[1], time.tzname[0])
