# Functions of the Zephyr modules of tvmtiny models. Every model brings them; the last definition counts, and all are
# the same for one version of tvmtiny.

# The library of what models share: made by the first, completed by each. DIRECTORY: that of a model; the rest: files
# in it that several models may bring.
function(tvmt_zephyr_common directory)
  if(NOT TARGET tvmtiny)
    zephyr_library_named(tvmtiny)
    set_target_properties(tvmtiny PROPERTIES TVMT_ARENA_BYTES 0 TVMT_ARENA_ALIGN 1)
    target_compile_definitions(tvmtiny PRIVATE
      TVMT_SHARED_ARENA_BYTES=$<TARGET_PROPERTY:tvmtiny,TVMT_ARENA_BYTES>
      TVMT_SHARED_ARENA_ALIGN=$<TARGET_PROPERTY:tvmtiny,TVMT_ARENA_ALIGN>)
    zephyr_include_directories(${directory}/zephyr/include)
    zephyr_linker_sources(SECTIONS ${directory}/zephyr/tvmt_zephyr.ld)
  endif()
  tvmt_common_sources(tvmtiny ${directory} zephyr/tvmt_zephyr.c ${ARGN})
  if(CONFIG_TVMT_SHELL)
    tvmt_common_sources(tvmtiny ${directory} zephyr/tvmt_zephyr_shell.c)
  endif()
endfunction()

# A model whose arena is the shared one: that holds at least BYTES bytes, aligned to ALIGN.
function(tvmt_zephyr_share_arena bytes align)
  tvmt_raise(TVMT_ARENA_BYTES ${bytes})
  tvmt_raise(TVMT_ARENA_ALIGN ${align})
endfunction()

function(tvmt_raise property value)
  get_target_property(largest tvmtiny ${property})
  if(value GREATER largest)
    set_target_properties(tvmtiny PROPERTIES ${property} ${value})
  endif()
endfunction()

# The linker's name of the memory region that the devicetree chooses as CHOSEN.
function(tvmt_zephyr_region chosen result)
  dt_chosen(node PROPERTY "${chosen}")
  dt_prop(region PATH "${node}" PROPERTY "zephyr,memory-region")
  if(NOT region)
    message(FATAL_ERROR "${node}, which the devicetree chooses as ${chosen}, is not compatible with "
                        "zephyr,memory-region.")
  endif()
  string(MAKE_C_IDENTIFIER "${region}" region)
  set(${result} ${region} PARENT_SCOPE)
endfunction()

# Put the constants of the file WEIGHTS into the memory region that the devicetree chooses as tvmtiny,weights.
function(tvmt_zephyr_place_weights weights)
  tvmt_zephyr_region("tvmtiny,weights" region)
  if(CONFIG_TVMT_WEIGHTS_COPY)
    zephyr_code_relocate(FILES ${weights} LOCATION ${region}_RODATA)
  else()
    zephyr_code_relocate(FILES ${weights} LOCATION ${region}_RODATA NOCOPY)
  endif()
endfunction()
