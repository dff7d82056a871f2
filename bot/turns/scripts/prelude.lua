-- The durable queue: one verb per call, each atomic. `__init__.py` puts the files of a verb's script together:
-- this one first, then those that its file needs.
--
-- KEYS[1] is the prefix of all keys, with the hash tag that keeps them in one slot.
-- ARGV[1] is the verb, ARGV[2] how long keys are kept (ms), the rest the verb's arguments in the order of
-- its function.
--
-- A thread with work is in exactly one of: ready, due, throttled.

local prefix = KEYS[1]
local verbs = {}

local LATE_ADMISSION_MS = 600000
-- Longer than any platform delivers a press again.
local PRESS_MS = 3600000
-- No platform asks for a longer pause.
local DAY_MS = 86400000
-- After its day, what was used is only corrected.
local SPENT_MS = 2 * DAY_MS
local MOST_WAKES = 100
-- The value of a record's `forget` if the answer is dropped, too: at once, or after a repair without buttons.
local WITH_ANSWER, AFTER_REPAIR = '2', '3'

-- The keys:
--   mailbox:<thread>     list of turn ids, the running or next one first
--   turn:<id>            hash: the record of a turn
--   open, open:<person>  sets of turns that are admitted and have no outcome yet
--   running:<person>     set of turns that workers have taken
--   history:<thread>     list of exchanges
--   speakers:<thread>    set of the people who have spoken in a thread of the bot, up to some
--   turns:<thread>       sorted set of ended turns, by the time (ms) of their end
--   marks                sorted set of deleted messages whose turns were not known, by that time (ms)
--   kept:<person>        list of ended turns, oldest first, each behind the bytes of all up to it
--   posted:<message>     the thread in which a surface posted a message
--   deleted:<message>    a message that was deleted while no turn was known to have posted it
--   pressed:<press>      a press of Regenerate, or a command to reset, that was accepted
--   answered:<id>        set if a turn has ended and its record expires before it could come again
--   newest:<thread>      the last turn of a thread whose reply has ended and shows something
--   heard:<message>      set of the threads in whose contexts a message is, by the id of its turn
--   told:<thread>        the turn that announced that the thread's beginning no longer fits
--   seen:<thread>        set if earlier messages are not read as context despite an empty history: part of the
--                        thread was forgotten, or its first question has no answer and nothing was before it
--   spent:<day>:<who>    hash: how many questions and tokens of a model a person, or all people of a server, have
--                        used on a day (UTC, counted from 1970); of open turns it has what they have reserved
--   warned:<person>      set if the person has read in the last day that they may not use the bot
--   preferences:<place>  hash of what was chosen for a thread, a channel or a server, each value as JSON; the
--                        place is written as a thread, without its last parts
--   of:<platform>:<id>   set of the threads in which a person has spoken; see forgetting.lua
--   ready:<platform>     sorted set of threads that may be taken, by the position of their first turn
--   due:<platform>       sorted set of threads by the time (ms) at which they are ready again: the end of the lease
--                        of the turn that was taken, or the time of a retry
--   wake:<platform>      list with an item for each thread that was made ready; workers without work block on it
--   throttled:<person>   sorted set of threads, by position, whose person has enough turns running
--   repairs:<platform>   sorted set of ended turns by the time (ms) at which their reply is repaired

-- The record of a turn, `turn:<id>`; records.py reads its JSON. A flag is '1' or missing. The question:
--   state         queued, running, dropped, or the outcome
--   thread        the thread as ThreadKey writes it
--   person        the key of the asker, written as a thread, too
--   asker         the id of the person
--   asked_at      when it was asked (s)
--   text          the question; '' once it is dropped
--   left_out      how many letters of it were left out
--   where         the name of the place
--   body          JSON: what else the turn was admitted with
--   context       JSON: the message to which the question replies, and earlier messages of others
--   unheard       JSON: ids of messages that were removed from the context; a worker may still have them
--   unsaid        flag: also messages of a person who is being forgotten
--   preferences   JSON: how to answer, as it was chosen when the turn was queued or edited
--   edited        when the question was last edited (ms)
--   forget        '1' if the question was forgotten, WITH_ANSWER or AFTER_REPAIR if the answer goes, too
-- Its way through the queue:
--   fence         how often the turn was taken: the number of its newest lease
--   worker        the worker that has taken it, for operators only
--   stop          flag: a person asks for the end of the answer
--   restarts      how often workers restarted for an edit since the turn was queued; see MOST_RESTARTS
--   joins         flag: it may be answered together with others
--   joined        JSON: ids of the turns that are answered together with this one
--   lead          id of the turn together with which this one is answered
-- Its answer:
--   above         the last message of the thread's newest reply when the turn was first taken
--   shown         all text that its messages show, or will show after the write under way
--   end           how the answer of an ended turn ended: an End of domain.py
--   after         the thread's last remembered turn when this one ended without an exchange
--   continued     JSON: ids of the turns that continue the answer
--   kept          the bytes at this turn in the list `kept:<person>`, of all turns up to it
-- Of both:
--   attempts      the attempt under way and those before it that got no further than the best one
--   position      the time (us) by which ready threads are sorted
--   place_changes JSON: what is added to the place in the body, by a press or the queue
--   message_ids   JSON: ids of the messages that show the answer, one for each page
--   more          JSON: further facts about the text in `shown`, and the tokens used so far
--   max_progress  bytes of the longest text that an attempt has shown
--   previous_answer  the answer that stays until there is a new one
--   late_writes   JSON: ids of messages that may show something else than the turn ended with
--   repair_attempts  how often its repair was claimed
--   edited_since_take  flag: the question was edited, and no worker has taken the turn since
--   reserved      '<day> <questions> <tokens>' of its person's quota, until the turn ends

local function key(kind, ...)
  return prefix .. table.concat({kind, ...}, ':')
end

local function keep(...)
  for _, name in ipairs({...}) do redis.call('PEXPIRE', name, ARGV[2]) end
end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

local function platform_of(thread)
  return string.match(thread, '^[^:]*')
end

-- A person's id, of which `person` has the key.
local function id_of(person)
  return string.match(person, '[^:]*$')
end

-- The JSON object or array; {} if it is none.
local function decoded(json)
  local readable, value = pcall(cjson.decode, json)
  return readable and type(value) == 'table' and value or {}
end

-- The ids, of messages or turns, in a JSON array.
local function ids_in(json)
  local found = {}
  for _, one in ipairs(decoded(json)) do
    if type(one) == 'string' then table.insert(found, one) end
  end
  return found
end

-- The last message in a JSON array; '' if there is none.
local function last_of(message_ids)
  local found = ids_in(message_ids)
  return found[#found] or ''
end

-- A finite number for a sum.
local function natural(value)
  value = tonumber(value) or 0
  return value >= 0 and value < 2 ^ 52 and math.floor(value) or 0
end

local function record(id)
  local values = redis.call('HMGET', key('turn', id), 'state', 'fence', 'thread', 'person')
  return {
    state = values[1], fence = values[2], thread = values[3],
    person = values[4] or '',
  }
end

local function is_open(turn)
  return turn.state == 'queued' or turn.state == 'running'
end

local function close(id, person)
  redis.call('ZREM', key('open'), id)
  redis.call('SREM', key('open', person), id)
end

-- The turns that are answered together with this one, in their order.
local function joined_to(id)
  return ids_in(redis.call('HGET', key('turn', id), 'joined') or '')
end

-- The turn with which this one is answered; nil if it is answered alone. An older version may have ended
-- only that one.
local function lead_of(id)
  local known = redis.call('HMGET', key('turn', id), 'lead', 'state')
  local lead = known[1]
  if not lead or known[2] == 'queued' and not is_open(record(lead)) then return nil end
  for _, one in ipairs(joined_to(lead)) do
    if one == id then return lead end
  end
end

local function asker_of(id)
  return redis.call('HGET', key('turn', id), 'asker')
end

-- The bytes of a question in its record.
local function size_of(id)
  return redis.call('HSTRLEN', key('turn', id), 'body') + redis.call('HSTRLEN', key('turn', id), 'text')
end

-- A turn keeps its position when it is released, or while others of its thread run.
local function position_of(thread)
  local first = redis.call('LINDEX', key('mailbox', thread), 0)
  return first and redis.call('HGET', key('turn', first), 'position') or now_us()
end

local function make_ready(thread)
  local platform = platform_of(thread)
  local ready, wake = key('ready', platform), key('wake', platform)
  redis.call('ZREM', key('due', platform), thread)
  redis.call('ZADD', ready, position_of(thread), thread)
  -- A worker that is woken takes all that it can, so a few items wake every worker.
  redis.call('RPUSH', wake, '1')
  redis.call('LTRIM', wake, -MOST_WAKES, -1)
  keep(ready, wake)
end

local function make_due(thread, delay)
  local due = key('due', platform_of(thread))
  redis.call('ZREM', key('ready', platform_of(thread)), thread)
  redis.call('ZADD', due, now_ms() + math.min(delay, DAY_MS), thread)
  keep(due)
end

local function leave_queue(thread, person)
  redis.call('ZREM', key('ready', platform_of(thread)), thread)
  redis.call('ZREM', key('due', platform_of(thread)), thread)
  redis.call('ZREM', key('throttled', person), thread)
end

-- The person may run one more turn.
local function wake_throttled(person)
  local thread = redis.call('ZPOPMIN', key('throttled', person))[1]
  if thread then make_ready(thread) end
end

-- The id of an exchange's turn; '' if it cannot be read. Lines are long, and most begin with the id.
local function turn_of(line)
  local id = string.match(line, '^{"turn_id": "([^"\\]*)"') or decoded(line).turn_id
  return type(id) == 'string' and id or ''
end

-- The id of the thread's last remembered turn; '' if there is none.
local function last_remembered(thread)
  return turn_of(redis.call('LINDEX', key('history', thread), -1) or '')
end

local function is_being_forgotten(platform, written)
  return redis.call('ZSCORE', prefix .. 'forgetting', 'person:' .. platform .. ':' .. written)
end
