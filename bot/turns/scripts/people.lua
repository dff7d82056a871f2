-- What people say beside the questions: who has spoken in a thread of the bot, and the messages of others that a
-- turn's prompt shows. `context:<id>` has a line for each of these, '<kind>\n<message>\n<person>\n<json>'; the kind is
-- quote or message.

-- It matters whether one person or several have spoken in a thread.
local MOST_SPEAKERS = 10

-- Notes about a thread expire with its history: only questions and answers renew them.
local function note_speaker(thread, id)
  local name = key('speakers', thread)
  local known = redis.call('SCARD', name)
  if is_being_forgotten(platform_of(thread), id) then return end
  if id ~= '' and known < MOST_SPEAKERS then redis.call('SADD', name, id) end
  if known == 0 then keep_in(thread, name) end
end

-- Notes that people have spoken in a thread, and returns how many have; 0 if the bot was never asked there.
-- `ours` is '1' if it is a thread of the bot for another reason.
function verbs.note_speakers(thread, ours, ...)
  local name = key('speakers', thread)
  if ours == '' and redis.call('EXISTS', name) == 0 then return 0 end
  for _, id in ipairs({...}) do note_speaker(thread, id) end
  return redis.call('SCARD', name)
end

-- Notes that a person has spoken in a thread, so that it can be found. It expires with the history.
local function note_of(platform, written, thread)
  local name = key('of', platform, written)
  redis.call('SADD', name, thread)
  keep(name)
end

-- Renews the notes that lead from the messages of a context, and from their people, to it.
local function note_context(id, thread)
  for _, line in ipairs(redis.call('LRANGE', key('context', id), 0, -1)) do
    local message, person = string.match(line, '^%l+\n([^\n]*)\n([^\n]*)\n')
    -- A damaged line is shown to nobody.
    if message then
      redis.call('SADD', key('heard', message), id)
      keep_in(thread, key('heard', message))
      if person ~= '' then note_of(platform_of(thread), quoted(person), thread) end
    end
  end
end

-- `lines` is a JSON array. People who are being forgotten are left out.
local function store_context(id, thread, lines)
  local name = key('context', id)
  redis.call('DEL', name)
  for _, line in ipairs(decoded(lines)) do
    local person = string.match(line, '^%l+\n[^\n]*\n([^\n]*)\n')
    if not is_being_forgotten(platform_of(thread), quoted(person)) then redis.call('RPUSH', name, line) end
  end
  keep_in(thread, name)
  note_context(id, thread)
end

-- Drops what was read of the files of one message of a turn.
local function drop_files(id, message)
  for _, name in ipairs(redis.call('HKEYS', key('files', id))) do
    if string.sub(name, 1, #message + 1) == message .. ' ' then redis.call('HDEL', key('files', id), name) end
  end
end

local function drop_from_contexts(message)
  for _, id in ipairs(redis.call('SMEMBERS', key('heard', message))) do
    local name = key('context', id)
    for _, line in ipairs(redis.call('LRANGE', name, 0, -1)) do
      if string.match(line, '^%l+\n([^\n]*)\n') == message then redis.call('LREM', name, 1, line) end
    end
    drop_files(id, message)
  end
  redis.call('DEL', key('heard', message))
end
